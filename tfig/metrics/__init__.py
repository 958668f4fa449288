"""Can an explanation be trusted? Metrics, as plain functions of an `Explanation`."""

from tfig.metrics.axioms import completeness as completeness
from tfig.metrics.axioms import input_invariance as input_invariance
from tfig.metrics.axioms import non_sensitivity as non_sensitivity
from tfig.metrics.complexity import complexity as complexity
from tfig.metrics.complexity import sparseness as sparseness
from tfig.metrics.curves import Curve as Curve
from tfig.metrics.curves import deletion as deletion
from tfig.metrics.curves import insertion as insertion
from tfig.metrics.curves import pixel_flipping as pixel_flipping
from tfig.metrics.facts import METRICS as METRICS
from tfig.metrics.facts import Metric as Metric
from tfig.metrics.faithfulness import average_drop as average_drop
from tfig.metrics.faithfulness import faithfulness_correlation as faithfulness_correlation
from tfig.metrics.faithfulness import increase as increase
from tfig.metrics.faithfulness import infidelity as infidelity
from tfig.metrics.faithfulness import sensitivity_n as sensitivity_n
from tfig.metrics.localisation import pointing_game as pointing_game
from tfig.metrics.localisation import relevance_mass as relevance_mass
from tfig.metrics.localisation import relevance_rank as relevance_rank
from tfig.metrics.randomisation import Randomisation as Randomisation
from tfig.metrics.randomisation import model_randomisation as model_randomisation
from tfig.metrics.randomisation import random_logit as random_logit
from tfig.metrics.robustness import avg_sensitivity as avg_sensitivity
from tfig.metrics.robustness import local_lipschitz as local_lipschitz
from tfig.metrics.robustness import max_sensitivity as max_sensitivity

__all__ = [
    "METRICS",
    "Curve",
    "Metric",
    "Randomisation",
    "average_drop",
    "avg_sensitivity",
    "completeness",
    "complexity",
    "deletion",
    "faithfulness_correlation",
    "increase",
    "infidelity",
    "input_invariance",
    "insertion",
    "local_lipschitz",
    "max_sensitivity",
    "model_randomisation",
    "non_sensitivity",
    "pixel_flipping",
    "pointing_game",
    "random_logit",
    "relevance_mass",
    "relevance_rank",
    "sensitivity_n",
    "sparseness",
]
