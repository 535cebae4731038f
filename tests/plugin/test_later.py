"""Properties of imports that LAVIS's modules make when they use them: they are not made before, they give the real
modules and functions, and modules that are imported already are used at once."""

from __future__ import annotations


def test_pandas_and_timm_are_imported_when_they_are_used(child) -> None:
    code = """
        import sys
        from lavis.common import dist_utils, utils
        names = ("pandas", "timm", "torchvision.datasets.utils")
        print([name for name in names if name in sys.modules])
        print(utils.pd.DataFrame({"a": [1, 2]}).shape, utils.check_integrity("/nowhere"))
        import pandas, timm.models.hub
        print(utils.pd.Series is pandas.Series)
        print(dist_utils.timm_hub.get_cache_dir is timm.models.hub.get_cache_dir)
    """
    assert child.output(code).splitlines() == ["[]", "(2, 1) False", "True", "True"]


def test_what_is_imported_already_is_used_at_once(child) -> None:
    code = """
        import pandas, timm.models.hub
        from lavis.common import dist_utils, utils
        print(utils.pd is pandas, dist_utils.timm_hub is timm.models.hub)
    """
    assert child.output(code) == "True True"
