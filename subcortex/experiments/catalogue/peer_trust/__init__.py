"""Whether what one GPU copies to another arrives; all that follows goes by it."""
