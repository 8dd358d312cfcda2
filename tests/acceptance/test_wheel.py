"""The built distribution in an environment of its own: what is in it, and a project of another shape that uses it."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tarfile
import venv
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).parents[2]

# A package of its own in src/, models that nothing but the endpoints and tests import, no conftest.py.
_FILES = {
    "pytest.ini": """
        [pytest]
        pythonpath = . src
        asyncio_mode = auto
        asyncio_default_fixture_loop_scope = function
        filterwarnings = error
    """,
    "src/shop/__init__.py": "",
    "src/shop/models.py": """
        from app.db import Base
        from sqlalchemy.orm import Mapped, mapped_column

        class Product(Base):
            __tablename__ = "products"

            id: Mapped[int] = mapped_column(primary_key=True, init=False)
            name: Mapped[str] = mapped_column(unique=True)
    """,
    "app/main.py": """
        from app.config import get_settings
        from app.db import get_session
        from fastapi import Depends, FastAPI
        from shop.models import Product
        from sqlalchemy.ext.asyncio import AsyncSession

        app = FastAPI()

        @app.post("/products")
        async def create(name: str, session: AsyncSession = Depends(get_session)) -> int:
            product = Product(name)
            session.add(product)
            await session.commit()
            return product.id + 0 * get_settings().DB_POOL_SIZE
    """,
    "tests/test_products.py": """
        import httpx
        from app.main import app
        from shop.models import Product
        from sqlalchemy import select

        async def post(name):
            async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://shop") as client:
                return await client.post("/products", params={"name": name})

        async def test_created(session):
            response = await post("tea")

            assert (await session.get_one(Product, response.json())).name == "tea"

        async def test_created_again(session):
            await post("tea")

            assert (await session.scalars(select(Product.name))).all() == ["tea"]
    """,
}
_OWN_BASE = {
    "src/shop/models.py": """
        from sqlalchemy.orm import DeclarativeBase, Mapped, MappedAsDataclass, mapped_column

        class ShopBase(MappedAsDataclass, DeclarativeBase):
            pass

        class Product(ShopBase):
            __tablename__ = "products"

            id: Mapped[int] = mapped_column(primary_key=True, init=False)
            name: Mapped[str] = mapped_column(unique=True)
    """,
    "pytest.ini": _FILES["pytest.ini"] + "    chatdify_db_metadata = shop.models:ShopBase\n",
}


@dataclass(frozen=True, slots=True)
class Distribution:
    """What was built, and where it is installed.

    Args:
        wheel: The wheel.
        sdist: The source distribution.
        python: The interpreter of an environment that has the wheel, and the dependencies of this one.
    """

    wheel: Path
    sdist: Path
    python: Path


@pytest.fixture(scope="module")
def distribution(tmp_path_factory: pytest.TempPathFactory) -> Distribution:
    """Build the distribution and install the wheel in a fresh environment."""
    built, home = tmp_path_factory.mktemp("built"), tmp_path_factory.mktemp("environment")
    _run([sys.executable, "-m", "hatchling", "build", "-d", str(built)], ROOT)
    (wheel,), (sdist,) = built.glob("*.whl"), built.glob("*.tar.gz")
    venv.create(home, symlinks=True)
    python = home / "bin/python"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(python)]
    _run([*pip, "install", "--quiet", "--no-deps", "--no-index", str(wheel)], built)
    # The dependencies are those of this environment. Its own .pth files, an editable install's say, are not read.
    (site,) = home.glob("lib/python*/site-packages")
    (site / "dependencies.pth").write_text("\n".join({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}))
    return Distribution(wheel, sdist, python)


def test_the_wheel_holds_both_packages(distribution: Distribution) -> None:
    """Modules, types and licence are in it; ``app`` has no ``__init__.py``, so that it stays a namespace package."""
    names = set(ZipFile(distribution.wheel).namelist())
    sources = {
        str(path.relative_to(ROOT)) for name in ("app", "pytest_chatdify_db") for path in (ROOT / name).rglob("*.py")
    }

    assert names >= sources | {"app/py.typed", "app/db/py.typed", "pytest_chatdify_db/py.typed"}
    assert "app/__init__.py" not in names
    assert {name.split("/")[0] for name in names} == {"app", "pytest_chatdify_db", "chatdify_db-0.1.0.dist-info"}
    assert "chatdify_db-0.1.0.dist-info/licenses/LICENSE" in names


def test_the_source_distribution_can_be_tested(distribution: Distribution) -> None:
    """It has the tests, the sample application and the documentation."""
    with tarfile.open(distribution.sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}

    assert names >= {"tests/acceptance/test_wheel.py", "examples/chatdify/app/main.py", "docs/plugin.md", "conftest.py"}


@pytest.mark.parametrize("files", [_FILES, _FILES | _OWN_BASE], ids=["foundation's base", "base of its own"])
def test_a_project_of_another_shape(distribution: Distribution, files: dict[str, str], tmp_path: Path) -> None:
    """No marker, no fixture but ``session``: endpoint and test meet in one database, and each test's is empty."""
    _write(files, tmp_path)

    output = _run(
        [str(distribution.python), "-m", "pytest", "-p", "chatdify_db", "--chatdify-db-server=embedded"], tmp_path
    )

    assert "2 passed" in output


def test_a_project_is_type_checked(distribution: Distribution, tmp_path: Path) -> None:
    """The names of the layer have their types in a project's code."""
    _write({name: text for name, text in _FILES.items() if name.endswith("models.py") or "main" in name}, tmp_path)
    command = [sys.executable, "-m", "mypy", "--strict", "--python-executable", str(distribution.python)]
    options = ["--explicit-package-bases", "--namespace-packages", "--cache-dir", str(tmp_path / "cache")]

    assert "Success" in _run([*command, *options, "app/main.py", "src/shop/models.py"], tmp_path, MYPYPATH="src:.")


def _write(files: dict[str, str], directory: Path) -> None:
    for name, text in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(text))


def _run(command: list[str], directory: Path, **variables: str) -> str:
    """Run *command* and return its output; options of the surrounding run do not reach it."""
    kept = {
        name: text for name, text in os.environ.items() if not name.startswith(("CHATDIFY_DB_", "PYTEST_", "PYTHON"))
    }
    done = subprocess.run(command, cwd=directory, env=kept | variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
