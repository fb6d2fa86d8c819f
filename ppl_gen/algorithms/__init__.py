"""Pure functions over arrays that know no model."""
