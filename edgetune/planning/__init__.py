"""What a training would need, told from the configuration of the base alone: parameters, memory, disk, time."""
