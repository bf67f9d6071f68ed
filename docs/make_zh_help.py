"""Writes the Chinese help pages of the nodes from locales/zh, which a test holds them to.

python docs/make_zh_help.py
"""

import json
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOCALE = ROOT / "locales" / "zh" / "nodeDefs.json"
DOCS = ROOT / "web" / "docs"


def page(name: str, node: dict) -> str:
    """The help page of a node."""
    lines = [f"# {node['display_name']}", "", node["description"], ""]
    if node["inputs"]:
        lines += ["| 输入 | 说明 |", "| --- | --- |"]
        for key, port in node["inputs"].items():
            lines.append(f"| {port['name']} (`{key}`) | {port['tooltip']} |")
        lines.append("")
    lines += ["| 输出 | 说明 |", "| --- | --- |"]
    lines += [f"| {port['name']} | {port['tooltip']} |" for port in node["outputs"].values()]
    lines += ["", f"英文说明更完整, 见 `web/docs/{name}.md`。下拉选项的值为英文。"]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Write all pages."""
    for name, node in json.loads(LOCALE.read_text(encoding="utf-8")).items():
        folder = DOCS / name
        folder.mkdir(exist_ok=True)
        (folder / "zh.md").write_text(page(name, node), encoding="utf-8")


if __name__ == "__main__":
    main()
