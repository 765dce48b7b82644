"""Recipes: a YAML file becomes one checked, frozen configuration with a hash.

Bundled recipes are the YAML files beside the packages (`datagen/recipes/`, `vae/recipes/`).
"""
