"""Tables and figures of what runs measured."""
