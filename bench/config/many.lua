-- A different token with each request: one line each of the file that is given.
local threads, requests, i = 0, {}, 0
function setup(thread)
	thread:set("number", threads)
	threads = threads + 1
end
function init(args)
	for token in io.lines(args[1]) do
		requests[#requests + 1] = wrk.format(nil, nil, { Authorization = "Bearer " .. token, Host = wrk.headers["Host"] })
	end
	i = math.floor(#requests * number / 2) -- two threads at most, half a list apart
end
function request()
	i = i % #requests + 1
	return requests[i]
end
-- What bench reads when wrk is done.
function done(summary, latency, requests)
	local e = summary.errors
	io.write(string.format("BENCH %d %d %d %d %d\n", summary.requests, summary.duration,
		e.connect + e.read + e.write + e.status + e.timeout, latency:percentile(50), latency:percentile(99)))
end
