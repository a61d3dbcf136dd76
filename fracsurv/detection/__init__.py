"""The vertebra finder: train it, find vertebrae with it, judge it.

found, provenance = read_labelled("path/to/yolo")
finder = train_finder(found, provenance, DetectorRecipe())
vertebrae = find(finder, radiographs)
"""

from fracsurv.detection.column import one_column
from fracsurv.detection.finder import (
    Finder,
    Vertebrae,
    find,
    load_finder,
    save_finder,
    score_finder,
    train_finder,
)
from fracsurv.detection.inference import Detections, detect
from fracsurv.detection.keypoint_training import KeypointRecipe
from fracsurv.detection.network import VertebraDetector
from fracsurv.detection.scores import average_precision, scores
from fracsurv.detection.sources import Labelled, read_all_labelled, read_labelled
from fracsurv.detection.tables import find_vertebrae, measure_vertebrae
from fracsurv.detection.training import DetectorRecipe

__all__ = [
    "Detections",
    "DetectorRecipe",
    "Finder",
    "KeypointRecipe",
    "Labelled",
    "VertebraDetector",
    "Vertebrae",
    "average_precision",
    "detect",
    "find",
    "find_vertebrae",
    "load_finder",
    "measure_vertebrae",
    "one_column",
    "read_all_labelled",
    "read_labelled",
    "save_finder",
    "score_finder",
    "scores",
    "train_finder",
]
