-- KEYS: due, off. Returns {now, waiting, lowest score or '', offset or ''}.
local clock = redis.call('TIME')
local first = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')
return {clock[1] * 1000 + math.floor(clock[2] / 1000), redis.call('ZCARD', KEYS[1]), first[2] or '', redis.call('GET', KEYS[2]) or ''}
