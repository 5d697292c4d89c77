"""Estimates what a training needs from the base's configuration: parameters, memory, disk, time."""
