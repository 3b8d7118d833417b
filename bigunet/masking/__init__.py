"""Which pixels of a slide are segmented: a mask from a label, or tissue that is found."""
