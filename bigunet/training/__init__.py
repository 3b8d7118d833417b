"""How a network learns: data, targets, weights, energy, as in the recipe of the paper."""
