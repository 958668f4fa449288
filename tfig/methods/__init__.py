"""The methods: what the papers call methods, a few lines each over a kernel."""

from tfig.methods.attention import AttentionRollout as AttentionRollout
from tfig.methods.attention import GradientWeightedAttention as GradientWeightedAttention
from tfig.methods.cam import CAM as CAM
from tfig.methods.cam import GradCAM as GradCAM
from tfig.methods.cam import GradCAMPlusPlus as GradCAMPlusPlus
from tfig.methods.cam import GuidedGradCAM as GuidedGradCAM
from tfig.methods.cam import LayerCAM as LayerCAM
from tfig.methods.cam import ScoreCAM as ScoreCAM
from tfig.methods.coalition import RISE as RISE
from tfig.methods.coalition import FeatureAblation as FeatureAblation
from tfig.methods.coalition import Occlusion as Occlusion
from tfig.methods.coalition import PredictionDifference as PredictionDifference
from tfig.methods.gradient import Gradient as Gradient
from tfig.methods.gradient import GradientXInput as GradientXInput
from tfig.methods.mask import IGOS as IGOS
from tfig.methods.mask import IGOSPlusPlus as IGOSPlusPlus
from tfig.methods.mask import MeaningfulPerturbation as MeaningfulPerturbation
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
from tfig.methods.regions import XRAI as XRAI
from tfig.methods.shapley import LIME as LIME
from tfig.methods.shapley import QII as QII
from tfig.methods.shapley import KernelSHAP as KernelSHAP
from tfig.methods.shapley import ShapleySampling as ShapleySampling
from tfig.methods.smoothing import SmoothGrad as SmoothGrad
from tfig.methods.smoothing import SquareGrad as SquareGrad
from tfig.methods.smoothing import VarGrad as VarGrad
from tfig.methods.walk import BlurIG as BlurIG
from tfig.methods.walk import BoundaryIG as BoundaryIG
from tfig.methods.walk import GuidedIG as GuidedIG
from tfig.problem import Method

REGISTRY: dict[str, type[Method]] = {
    method.name: method
    for method in (
        Gradient, GradientXInput, IntegratedGradients, ExpectedGradients, SmoothGrad, SquareGrad, VarGrad,
        Conductance, InternalInfluence, IGOS, LRP, DeepTaylor, DeepLIFT, DeepSHAP, GuidedBackprop, Deconvnet,
        Occlusion, FeatureAblation, PredictionDifference, ShapleySampling, KernelSHAP, LIME, RISE, QII,
        CAM, GradCAM, GradCAMPlusPlus, LayerCAM, ScoreCAM, GuidedGradCAM, AttentionRollout, GradientWeightedAttention,
        GuidedIG, BlurIG, XRAI, BoundaryIG, IGOSPlusPlus, MeaningfulPerturbation,
    )
}  # fmt: skip
"""Every method by the string that stands for it."""
