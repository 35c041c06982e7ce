"""Searching a folder of pictures with a trained model: what is found and cut, the index, its queries and answers."""
