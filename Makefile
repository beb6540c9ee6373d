# `make demo` teaches the bundled model a motion and shows it; `make test` runs all tests. Both set themselves up.

PYTHON ?= python3
VENV ?= .venv
PY := $(VENV)/bin/python
# processes that run tests, of one thread each
JOBS ?= 2
RUN = $$(ls -td results/dance-*/ | head -n 1)

.PHONY: demo test clean

demo: $(VENV)/installed
	$(PY) train_model.py --config config.yaml
	$(PY) generate_pretrained.py -m $(RUN) -o outputs/dance -p data/prompts/puppet_dance.txt \
		--batch-size 4 --guidance-scale 2 --steps 15 --overwrite
	$(PY) evaluate_motion.py -v outputs/dance --exemplars data/puppets/exemplars --motion dance

test: $(VENV)/installed-dev
	OMP_NUM_THREADS=1 $(PY) -m pytest -q -rs -n $(JOBS) --dist loadfile $(TESTS)

$(VENV)/installed: requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install -q -r requirements.txt
	touch $@

$(VENV)/installed-dev: $(VENV)/installed requirements-dev.txt
	$(PY) -m pip install -q -r requirements-dev.txt
	touch $@

clean:
	rm -rf $(VENV) results outputs
