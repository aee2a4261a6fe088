"""What fits where: memory estimates for models on GPUs."""
