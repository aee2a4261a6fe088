"""Questions the machine answers about itself; today those that arithmetic alone decides (``arithmetic``)."""
