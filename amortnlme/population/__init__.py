"""Floor 3: posterior draws and the population models fitted to them."""
