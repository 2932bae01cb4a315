"""Floor 5: estimation methods, all returning the same PopulationFit."""
