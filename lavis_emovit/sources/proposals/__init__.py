"""What a dataset of the user's own probably is: its layout, labels, columns and splits, each with the reason."""
