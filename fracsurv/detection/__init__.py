"""The vertebra finder: train it (`finder`), find a cohort's vertebrae with it (`locate`), evaluate it (`scores`).

Boxes are (n, 4) x_min, y_min, x_max, y_max, and keypoints (n, 6, 2) x and y, in pixels of the radiograph or of the
network's frame; y runs downwards, NaN = unknown. Radiographs are uint8 or uint16 arrays (h, w) of any size.

    found, provenance = read_labelled("path/to/yolo")
    finder = train_finder(found, provenance, DetectorRecipe())
    vertebrae = find(finder, radiographs)
"""
