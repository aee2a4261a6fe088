"""What an idle model keeps, what a sleeping one keeps, and what coming back costs."""
