"""How long a start takes with the model's file in memory and without, mapped and read."""
