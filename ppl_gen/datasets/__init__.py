"""Small data sets that come with the package; see README.md in this folder for their licences."""
