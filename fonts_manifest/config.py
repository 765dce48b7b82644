"""The base of every configuration: strict, frozen, its fields explained by the docstrings under them."""

from pydantic import BaseModel, ConfigDict


class Config(BaseModel):
    """An unknown key is an error, values are checked, and nothing changes after it was made."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, validate_default=True)
