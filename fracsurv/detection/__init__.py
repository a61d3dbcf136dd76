"""The vertebra finder: train it, find vertebrae with it, evaluate it.

found, provenance = read_labelled("path/to/yolo")
finder = train_finder(found, provenance, DetectorRecipe())
vertebrae = find(finder, radiographs)
"""

from importlib import import_module

_HOME = {
    "find_cohort": ("find_vertebrae", "measure_vertebrae"),
    "finder": ("Finder", "Vertebrae", "find", "load_finder", "save_finder", "score_finder", "train_finder"),
    "sources": ("Labelled", "read_all_labelled", "read_labelled"),
    "training": ("DetectorRecipe", "KeypointRecipe"),
}
__all__ = [name for names in _HOME.values() for name in names]


def __getattr__(name: str) -> object:
    """Imported when asked for: `detection.locate` reads boxes that were found before, without torch."""
    for module, names in _HOME.items():
        if name in names:
            return getattr(import_module(f"fracsurv.detection.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
