"""The network, what a model file says, and how it is run on a device."""
