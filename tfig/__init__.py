"""tfig explains Keras models: which parts of the input made the model say this?

>>> import tfig
>>> e = tfig.explain(model, x)
>>> e.attributions, e.convergence_delta
"""

import keras as _keras

if _keras.backend.backend() != "tensorflow":
    raise ImportError(
        f"tfig explains models by TensorFlow, and Keras runs on {_keras.backend.backend()!r} here; set "
        "KERAS_BACKEND=tensorflow before Keras is imported. Models saved as .keras files load under any backend."
    )

from tfig import baselines as baselines
from tfig import callbacks as callbacks
from tfig import metrics as metrics
from tfig import rules as rules
from tfig.api import Explainer as Explainer
from tfig.api import explain as explain
from tfig.batch.table import read as read
from tfig.catalogue import methods as methods
from tfig.comparison import Comparison as Comparison
from tfig.comparison import compare as compare
from tfig.evaluation import Evaluation as Evaluation
from tfig.evaluation import evaluate as evaluate
from tfig.explanation import Explanation as Explanation
from tfig.memory import forget as forget
from tfig.methods import CAM as CAM
from tfig.methods import IGOS as IGOS
from tfig.methods import LIME as LIME
from tfig.methods import LRP as LRP
from tfig.methods import QII as QII
from tfig.methods import RISE as RISE
from tfig.methods import XRAI as XRAI
from tfig.methods import AttentionRollout as AttentionRollout
from tfig.methods import BlurIG as BlurIG
from tfig.methods import BoundaryIG as BoundaryIG
from tfig.methods import Conductance as Conductance
from tfig.methods import Deconvnet as Deconvnet
from tfig.methods import DeepLIFT as DeepLIFT
from tfig.methods import DeepSHAP as DeepSHAP
from tfig.methods import DeepTaylor as DeepTaylor
from tfig.methods import ExpectedGradients as ExpectedGradients
from tfig.methods import FeatureAblation as FeatureAblation
from tfig.methods import GradCAM as GradCAM
from tfig.methods import GradCAMPlusPlus as GradCAMPlusPlus
from tfig.methods import Gradient as Gradient
from tfig.methods import GradientWeightedAttention as GradientWeightedAttention
from tfig.methods import GradientXInput as GradientXInput
from tfig.methods import GuidedBackprop as GuidedBackprop
from tfig.methods import GuidedGradCAM as GuidedGradCAM
from tfig.methods import GuidedIG as GuidedIG
from tfig.methods import IGOSPlusPlus as IGOSPlusPlus
from tfig.methods import IntegratedGradients as IntegratedGradients
from tfig.methods import InternalInfluence as InternalInfluence
from tfig.methods import KernelSHAP as KernelSHAP
from tfig.methods import LayerCAM as LayerCAM
from tfig.methods import MeaningfulPerturbation as MeaningfulPerturbation
from tfig.methods import Occlusion as Occlusion
from tfig.methods import PredictionDifference as PredictionDifference
from tfig.methods import ScoreCAM as ScoreCAM
from tfig.methods import ShapleySampling as ShapleySampling
from tfig.methods import SmoothGrad as SmoothGrad
from tfig.methods import SquareGrad as SquareGrad
from tfig.methods import VarGrad as VarGrad
from tfig.pages.report import report as report
from tfig.score import At as At
from tfig.score import Contrast as Contrast
from tfig.serving import export as export
from tfig.summary import Summary as Summary
from tfig.summary import summary as summary
from tfig.tally import Tally as Tally
from tfig.version import VERSION as __version__
