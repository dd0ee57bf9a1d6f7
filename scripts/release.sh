#!/usr/bin/env bash
# Makes a release: writes its version wherever one is stated, commits, and tags the commit.
#     scripts/release.sh 0.2.0             nothing is pushed
#     scripts/release.sh --check v0.2.0    whether a tag names the version that lies here
# An image is built without .git, and a clone of depth 1 has no tags: so the version is in the files,
# and tag and files are written together.
source "$(dirname "$0")/common.sh"
cd "$ROOT"
tasks=(tasks/*/pyproject.toml)
version_here() { sed -n 's/^__version__ = "\(.*\)"/\1/p' gc_panther/__init__.py; }
if [ "${1:-}" = --check ]; then
    [ "${2:-}" = "v$(version_here)" ] ||
        fail "the tag ${2:-} is not v$(version_here), the version in gc_panther/__init__.py"
    ! grep -q '^## .* – unreleased' CHANGELOG.md || fail "CHANGELOG.md has no date for $(version_here)"
    exit
fi
version=${1:-}
[[ "$version" =~ ^[0-9]+\.[0-9]+\.[0-9]+$ ]] || fail "'$version' is not a version such as 0.2.0: scripts/release.sh VERSION" 2
[ -z "$(git status --porcelain)" ] || fail "there are changes that are not committed. Commit them first" 2
! git rev-parse -q --verify "refs/tags/v$version" > /dev/null || fail "there is a tag v$version already" 2
grep -q '^## .* – unreleased' CHANGELOG.md || fail "CHANGELOG.md has no heading '## … – unreleased' to release" 2
sed -i "s/^__version__ = .*/__version__ = \"$version\"/" gc_panther/__init__.py
sed -i "s/^version = .*/version = \"$version\"/" "${tasks[@]}"
sed -i "s/^## .* – unreleased/## $version – $(date -u +%F)/" CHANGELOG.md
git commit --quiet -m "Release $version" gc_panther/__init__.py "${tasks[@]}" CHANGELOG.md
git tag -a -m "gc_panther $version" "v$version"
say "Released $version here. To publish it: git push --follow-tags"
