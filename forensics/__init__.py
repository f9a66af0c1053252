"""Can a detector of GAN images be trusted on generators it has never seen?"""
