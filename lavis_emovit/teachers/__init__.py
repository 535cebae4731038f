"""Teachers: other people's models of faces, each in an environment of its own, as annotators of images."""
