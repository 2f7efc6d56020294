-- wrk: ask for each path of a list once. Made for one thread; the list is the script's argument.
-- Prints RESULT and a line of JSON; times are in microseconds.
local paths = {}
local threads = {}
-- wrk calls request() once before it begins, to see what it makes.
used = -1
exhausted = 0

function setup(thread) threads[#threads + 1] = thread end

function init(arguments)
  for line in io.lines(arguments[1]) do
    paths[#paths + 1] = "GET " .. line .. " HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: */*\r\n\r\n"
  end
end

function request()
  used = used + 1
  if used > #paths then
    exhausted = 1
    return paths[#paths]
  end
  return paths[math.max(used, 1)]
end

function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format(
    'RESULT {"requests": %d, "microseconds": %d, "used": %d, "exhausted": %s, "p50": %d, ' ..
    '"p99": %d, "status_errors": %d, "socket_errors": %d}\n',
    summary.requests, summary.duration, threads[1]:get("used"),
    tostring(threads[1]:get("exhausted") == 1), latency:percentile(50), latency:percentile(99),
    errors.status, errors.connect + errors.read + errors.write + errors.timeout))
end
