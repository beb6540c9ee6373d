"""The bundled world: how its clips, its base and its recognizers are made and measured."""
