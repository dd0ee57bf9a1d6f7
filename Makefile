# What a contributor needs, in five commands; each sets .venv up first where it is missing.
.DEFAULT_GOAL := help
.PHONY: help setup format lint test coverage
ARGS ?=

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 18

setup: ## make .venv with the locked versions, and install the git hook
	@bash -c 'source scripts/common.sh && set_up_environment dev && "$$VENV/bin/pre-commit" install'

format: ## format the code, and apply the fixes that ruff has
	@bash -c 'source scripts/common.sh && set_up_environment dev && "$$VENV/bin/ruff" check --fix . && "$$VENV/bin/ruff" format .'

lint: ## style, types, imports, dependencies, workflows, sizes of files
	@scripts/lint.sh $(ARGS)

test: ## the first tier of the tests; ARGS=--all adds the second
	@./run_tests.sh $(ARGS)

coverage: ## the lines and branches that the tests reach, by package; ARGS=--all
	@scripts/coverage.sh $(ARGS)
