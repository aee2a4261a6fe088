"""What several experiments share: figures in words, tiers, priors, the machine's parts."""
