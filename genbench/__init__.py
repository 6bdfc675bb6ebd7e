"""genbench: how good is a generative model, and what does it cost?"""

__version__ = "0.1.0"
