"""What a setting may be, by name alone: to read settings, or a finished run, nothing here imports torch."""

RESNETS = ("resnet50", "resnet18")
VITS = ("vit_b_32", "vit_tiny")
ENCODERS = (*RESNETS, *VITS)
PLACES = ("auto", "resident", "streamed")
"""Where pixels lie while training."""
COMPILING = ("auto", "always", "never")
"""When torch compiles a network."""
