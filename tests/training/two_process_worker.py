"""One of two processes that train together: WORKDIR PORT INDEX STEPS SIGTERM_AT (0: never)."""

import os
import pathlib
import signal
import sys

import jax

HERE = pathlib.Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent.parent)]


def main(workdir, port, index, steps, sigterm_at):
    jax.distributed.initialize(f"localhost:{port}", num_processes=2, process_id=index)
    from training_fakes import CONFIG, FROZEN, FakeTask, batches, settings

    from vargen.training.loop import train

    def stream(start):
        for k, batch in enumerate(batches(start), start):
            if k + 1 == sigterm_at and index == 1:  # one of them is told; both must stop at the same step
                os.kill(os.getpid(), signal.SIGTERM)
            yield {name: array.reshape(2, -1, *array.shape[1:])[index] for name, array in batch.items()}

    done = train(FakeTask(noise=0.0), FROZEN, stream, workdir, CONFIG, settings(steps=steps), progress=False)
    print("finished" if not done.stopped_by else f"stopped {int(done.state.step)}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
