"Install `synthlab`. Every fact about the package is read from `settings.ini`."
import shutil
from configparser import ConfigParser
from pathlib import Path
from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

root = Path(__file__).parent
ini = ConfigParser(delimiters=["="])
ini.read(root/"settings.ini", encoding="utf-8")
cfg = ini["DEFAULT"]
lines = lambda name: cfg[name].strip().splitlines()
extras = {k.removesuffix("_requirements"): v.split() for k, v in cfg.items() if k.endswith("_requirements")}

class WithReports(build_py):
    "The reports lie beside the package in a checkout; in an installed package, inside it. What an earlier build left is not taken along."
    def run(self):
        if not self.editable_mode: shutil.rmtree(Path(self.build_lib)/"synthlab", ignore_errors=True)
        super().run()
        if self.editable_mode: return
        to = Path(self.build_lib)/"synthlab"/"nbs"; to.mkdir(parents=True, exist_ok=True)
        for report in (root/"nbs").glob("*.ipynb"): shutil.copy(report, to)

setup(
    name=cfg["lib_name"], version=cfg["version"], description=cfg["description"], url=cfg["git_url"],
    long_description=(root/"README.md").read_text(encoding="utf-8"), long_description_content_type="text/markdown",
    author=cfg["author"], author_email=cfg["author_email"], license=cfg["license"], keywords=cfg["keywords"].split(),
    classifiers=lines("classifiers"), project_urls=dict(line.split(maxsplit=1) for line in lines("project_urls")),
    python_requires=">=" + cfg["min_python"], install_requires=cfg["requirements"].split(), extras_require=extras,
    packages=find_packages(include=["synthlab", "synthlab.*"]),
    package_data={"synthlab": ["conf/**/*.yaml", "conf/*.yaml", "datasets/mod/*.mod"]},     # presets, and economies as text
    entry_points={
        "console_scripts": ["synthlab = synthlab.cli.main:main"],
        "nbdev": ["synthlab = synthlab._modidx:d"],                     # lets other projects' notebooks link to these names
    },
    cmdclass={"build_py": WithReports}, zip_safe=False,
)
