-- Leases what is due, in the order of due time: the member stays and its score becomes the end of the lease.
-- KEYS: due, off. ARGV: how many at most, lease in ms, the offset that the caller has applied (-1 for none).
-- Returns {1, now, end of the lease, waiting, due and not claimed, lowest score or '', members...}, or {0, the offset that the index has}.
local have = redis.call('GET', KEYS[2]) or ''
if (tonumber(have) or -1) < tonumber(ARGV[3]) then
  return {0, have}
end
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local lease = now + tonumber(ARGV[2])
local members = {}
if tonumber(ARGV[1]) > 0 then
  members = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, ARGV[1])
end
if #members > 0 then
  local scores = {}
  for _, member in ipairs(members) do
    scores[#scores + 1] = lease
    scores[#scores + 1] = member
  end
  redis.call('ZADD', KEYS[1], 'XX', unpack(scores))
end
local first = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')
local reply = {1, now, lease, redis.call('ZCARD', KEYS[1]), redis.call('ZCOUNT', KEYS[1], '-inf', now), first[2] or ''}
for _, member in ipairs(members) do
  reply[#reply + 1] = member
end
return reply
