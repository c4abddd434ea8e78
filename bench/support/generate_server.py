"""The yardstick of bench/serve.py: a model behind HTTP as transformers' documentation shows it, with a streamer.

`python -m bench.support.generate_server DIRECTORY` prints its port. POST / with {"prompt", "max_tokens", "seed"}
answers with pieces of text as they come; requests are answered one after the other.
"""

import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, TextIteratorStreamer


def main() -> None:
    """Serve the model until the process is ended."""
    directory = Path(sys.argv[1])
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(directory)
    turn = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.end_headers()
            with turn:
                torch.manual_seed(body["seed"])
                streamer = TextIteratorStreamer(tokenizer, skip_prompt=True)
                inputs = tokenizer(body["prompt"], return_tensors="pt", return_token_type_ids=False)
                options = {"do_sample": True, "temperature": 0.8, "top_k": 50, "max_new_tokens": body["max_tokens"]}
                arguments = {**inputs, **options, "pad_token_id": 1, "eos_token_id": None, "streamer": streamer}
                threading.Thread(target=model.generate, kwargs=arguments).start()
                for piece in streamer:
                    self.wfile.write(piece.encode())
                    self.wfile.flush()

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(server.server_address[1], flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
