import cbor2, zmq, my_microscope  # the last one is yours: acquire() and steer()
frames, latest = zmq.Context.instance().socket(zmq.PUB), zmq.Context.instance().socket(zmq.SUB)
frames.bind("tcp://127.0.0.1:5555")
latest.setsockopt(zmq.CONFLATE, 1)  # only ever the newest result
latest.subscribe("")
latest.connect("tcp://127.0.0.1:5557")
while (image := my_microscope.acquire()) is not None:  # a 2-D numpy array of counts
    frames.send_json({"dtype": str(image.dtype), "shape": image.shape, "pixel_size_pm": 15.0}, zmq.SNDMORE)
    frames.send(image.tobytes())
    if latest.poll(1000): my_microscope.steer(cbor2.loads(latest.recv())["candidates"])
