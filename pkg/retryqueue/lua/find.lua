-- Looks for the members that begin with a prefix, all of which are in one bucket.
-- KEYS: due, the bucket. ARGV: the prefix. Returns {now, then for each: member, score, pointer}.
local clock = redis.call('TIME')
local reply = {clock[1] * 1000 + math.floor(clock[2] / 1000)}
local fields = redis.call('HGETALL', KEYS[2])
for i = 1, #fields, 2 do
  if string.sub(fields[i], 1, #ARGV[1]) == ARGV[1] then
    local score = redis.call('ZSCORE', KEYS[1], fields[i])
    if score then
      reply[#reply + 1] = fields[i]
      reply[#reply + 1] = score
      reply[#reply + 1] = fields[i + 1]
    end
  end
end
return reply
