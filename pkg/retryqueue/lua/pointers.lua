-- Reads where the records of claimed members are.
-- KEYS: due, then for each member its bucket. ARGV: end of the lease, then the members.
-- Returns for each member the pointer; '' where it has gone since, '?' where the member is still leased and has none.
local reply = {}
for k = 2, #KEYS do
  local pointer = redis.call('HGET', KEYS[k], ARGV[k])
  if not pointer then
    local score = redis.call('ZSCORE', KEYS[1], ARGV[k])
    pointer = (score and tonumber(score) == tonumber(ARGV[1])) and '?' or ''
  end
  reply[#reply + 1] = pointer
end
return reply
