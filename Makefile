.PHONY: deps
deps:
	@bash scripts/deps.sh
