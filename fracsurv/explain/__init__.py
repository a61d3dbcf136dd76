"""What fitted models look at: vertebrae and places in images, clinical factors; and whether it is the fractures."""
