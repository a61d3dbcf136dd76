"""What a fitted network looks at: vertebra by vertebra, place by place, factor by factor; and whether it is right."""
