"""Compiles the loop of the fused steps where there is a C++ compiler; see adamw_jax/kernels."""

import jaxlib
from setuptools import Extension, setup

setup(
    ext_modules=[
        Extension(
            "adamw_jax.kernels._step",
            ["adamw_jax/kernels/step.cc"],
            include_dirs=[f"{jaxlib.__path__[0]}/include"],
            # Nothing that lets the compiler change a result, as -ffast-math would.
            extra_compile_args=["-std=c++17", "-O3", "-fno-math-errno", "-fno-trapping-math"],
            optional=True,  # without a compiler, the package is installed without the loop
        )
    ]
)
