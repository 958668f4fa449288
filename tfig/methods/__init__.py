"""The methods: what the papers call methods, a few lines each over a kernel."""

from tfig.methods.gradient import Gradient as Gradient
from tfig.methods.gradient import GradientXInput as GradientXInput
from tfig.methods.mask import IGOS as IGOS
from tfig.methods.path import Conductance as Conductance
from tfig.methods.path import ExpectedGradients as ExpectedGradients
from tfig.methods.path import IntegratedGradients as IntegratedGradients
from tfig.methods.path import InternalInfluence as InternalInfluence
from tfig.methods.propagation import LRP as LRP
from tfig.methods.propagation import Deconvnet as Deconvnet
from tfig.methods.propagation import DeepLIFT as DeepLIFT
from tfig.methods.propagation import DeepSHAP as DeepSHAP
from tfig.methods.propagation import DeepTaylor as DeepTaylor
from tfig.methods.propagation import GuidedBackprop as GuidedBackprop
from tfig.methods.smoothing import SmoothGrad as SmoothGrad
from tfig.methods.smoothing import SquareGrad as SquareGrad
from tfig.methods.smoothing import VarGrad as VarGrad
from tfig.problem import Method

REGISTRY: dict[str, type[Method]] = {
    method.name: method
    for method in (
        Gradient, GradientXInput, IntegratedGradients, ExpectedGradients, SmoothGrad, SquareGrad, VarGrad,
        Conductance, InternalInfluence, IGOS, LRP, DeepTaylor, DeepLIFT, DeepSHAP, GuidedBackprop, Deconvnet,
    )
}  # fmt: skip
"""Every method by the string that stands for it."""
